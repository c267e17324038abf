"Build settings come from settings.ini, and from nowhere else."
import shutil
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

here = Path(__file__).parent
ini = ConfigParser(delimiters=['='], interpolation=None)
ini.read(here/'settings.ini', encoding='utf-8')
cfg = ini['DEFAULT']
lines = lambda key: cfg.get(key, '').split()
extras = {key.removesuffix('_requirements'): lines(key) for key in cfg if key.endswith('_requirements')}


class Build(build_py):
    "Into a wheel go those notebooks, grids and recipes that the installed package uses; a checkout has them."
    def run(self):
        super().run()
        if self.editable_mode: return
        for path in (p for pattern in lines('shipped') for p in here.glob(pattern)):
            to = Path(self.build_lib)/cfg['lib_path']/'shipped'/path.relative_to(here)
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, to)


setup(
    name=cfg['lib_name'], version=cfg['version'], description=cfg['description'], license='MIT',
    author=cfg['author'], url=cfg['git_url'], keywords=cfg['keywords'].split(), cmdclass={'build_py': Build},
    long_description=(here/'README.md').read_text(encoding='utf-8'), long_description_content_type='text/markdown',
    packages=find_packages(include=['effssl', 'effssl.*']), include_package_data=True,
    package_dir={'': '.'},  # a checkout is put on the path, before which a folder `effssl` beside one's script does not count
    python_requires=f">={cfg['min_python']}", install_requires=lines('requirements'), extras_require=extras,
    entry_points={'console_scripts': lines('console_scripts'), 'nbdev': [f"{cfg['lib_name']}={cfg['lib_path']}._modidx:d"]},
)
